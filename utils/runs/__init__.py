"""What a run is: settings, folder, signals, logs, evaluation beside training."""
