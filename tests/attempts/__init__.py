"""What was tried to make the analyzer crash, hang, leak or lie: records of the campaigns, and the page made of them."""
