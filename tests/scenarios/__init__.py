"""Stories on the whole daemon: real processes, real servers, simulated peers that misbehave."""
