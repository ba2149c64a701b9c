"""Fork, in every way there is and in every situation: ways.py times situations.py is test_matrix.py."""
