"""Classifiers on extracted features: their folds, and fusion with SVM, XGBoost and MLP."""
