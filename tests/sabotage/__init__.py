"""Planted bugs: each must turn the gate that is for it red, beside a twin that stays green."""
