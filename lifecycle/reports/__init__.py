"""What analysts get from the audit trail: pages of events, exports, figures, pictures. Database only; no HTTP."""
