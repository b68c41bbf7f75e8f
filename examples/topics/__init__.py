"""The parts of the topic model example; ``topic_model.py`` beside this folder is where it starts."""
