"""sparkshark beside other tools, on workloads of any size:  python -m tests.benchmarks.peers --scale 1"""
