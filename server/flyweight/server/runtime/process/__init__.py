"""The process runtime: one worker process for each variant, and a hop to it that costs microseconds.

    caller's thread -> lane (a socket pair, one run at a time) -> a thread of the worker -> onnxruntime

`factory` and `runtime` fill the seam, `supervisor` and `post` keep the workers alive, `worker` is the other
process; `lane`, `packets` and `layouts` are what both ends speak.
"""
