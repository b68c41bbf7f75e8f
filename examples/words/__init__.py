"""The parts of the word2vec example; ``word2vec.py`` beside this folder is where it starts."""
