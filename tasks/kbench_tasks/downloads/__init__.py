"""Where the data sets and knowledge bases lie that kbench reads, and what is known of each file."""
