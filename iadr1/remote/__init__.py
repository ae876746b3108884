"""Asking models that run somewhere else: clients of their protocols, patience with their faults, and a purse."""
