"""Studies that were run to their end, with their records, and the page that tells what they found."""
