"""What the examples with sparse rows share: ``ftrl.py`` and ``logistic_regression.py`` beside this folder."""
