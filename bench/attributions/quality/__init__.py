"""What a single map is worth: functions from maps, and the net, to a number an example. No suite, no means."""
