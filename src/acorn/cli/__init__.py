"""The command line: the only place that parses arguments, prints results and exits."""
