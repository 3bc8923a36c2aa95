"""The small networks of an introductory article on multi-task learning: the worked example of a plugin."""
