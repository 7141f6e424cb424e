"""Pipeline schedules as data: written, proven, priced, and chosen. Knows neither torch nor processes."""
