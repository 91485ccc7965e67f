"""Carries out a plan: the campaign, the two runners behind one interface, and who may use what meanwhile."""
