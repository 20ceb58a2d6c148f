"""Child processes: started, watched, restarted, and stopped together with their owner."""
