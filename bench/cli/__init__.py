"""The command line: its entry, its options, commands/ and output/. Heavy imports wait until they are needed."""
