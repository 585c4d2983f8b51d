"""D4RL's antmaze and Adroit tasks on the modern MuJoCo bindings."""
