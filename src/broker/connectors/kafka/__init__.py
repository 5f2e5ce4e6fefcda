"""What everything that speaks Kafka shares: profiles, topics, the client, its health."""
