"""What a run tells about itself: metrics files, trackers, the terminal, the loss picture and the HTML report."""
