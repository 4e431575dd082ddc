"""What things cost, as ratios against a floor measured in the same run. Not collected by plain pytest."""
