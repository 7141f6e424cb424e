"""Graphs written by hand that several tests share."""
