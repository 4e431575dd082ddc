"""Workers: processes that carry submitted commands out, and do what is to be done every so many seconds."""
