"""Exports of trained models for other runtimes."""
