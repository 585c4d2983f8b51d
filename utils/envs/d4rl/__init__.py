"""D4RL on the modern MuJoCo bindings."""
