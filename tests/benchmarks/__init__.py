"""How fast `sparkshark analyze` is, and how much memory it takes:  python -m tests.benchmarks"""
