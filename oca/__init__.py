"""The cache appliance: edge workers that send film bytes, a keeper that fetches and stores them."""
