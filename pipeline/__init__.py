"""What the stages compute. Knows neither Prefect nor DVC."""
