"""The parts of the matrix factorisation example; ``matrix_factorization.py`` beside this folder is where it starts."""
