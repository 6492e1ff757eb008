"""What the work costs at least: the RSA of the logins, and the deciphering of the frames as Node does it."""

from __future__ import annotations

import json
import subprocess
import time
from typing import Final

from cryptography.hazmat.primitives.asymmetric import padding, rsa

from .runs import Took

DECIPHER: Final = """
// As the servers of the time did: a decipher object for each frame, the next vector from this frame's first block.
const crypto = require("crypto");
const frames = parseInt(process.argv[1]), key = crypto.randomBytes(16);
const sealed = [];
let vector = Buffer.alloc(16);
for (let k = 0; k < 1000; k++) {
  const cipher = crypto.createCipheriv("aes-128-cbc", key, vector);
  sealed.push([vector, Buffer.concat([cipher.update(Buffer.alloc([12, 28, 44][k % 3], 65)), cipher.final()])]);
  vector = sealed[k][1].subarray(0, 16);
}
let bytes = 0;
const begun = process.hrtime.bigint(), used = process.cpuUsage();
for (let k = 0; k < frames; k++) {
  const [before, frame] = sealed[k % 1000];
  const decipher = crypto.createDecipheriv("aes-128-cbc", key, before);
  bytes += Buffer.concat([decipher.update(frame), decipher.final()]).length;
}
const wall = Number(process.hrtime.bigint() - begun) / 1e9, cpu = process.cpuUsage(used);
console.log(JSON.stringify([wall, (cpu.user + cpu.system) / 1e6]));
"""


def rsa_of_logins(logins: int) -> Took:
    """Open ``logins`` times a block of 2048 bits and one of 1024: what nobody with both keys is spared."""
    sealed = []
    for bits in (2048, 1024):
        key = rsa.generate_private_key(65537, bits)
        sealed.append((key, key.public_key().encrypt(bytes(40), padding.PKCS1v15())))
    begun, used = time.perf_counter(), time.process_time()
    for _ in range(logins):
        for key, block in sealed:
            key.decrypt(block, padding.PKCS1v15())
    return Took(time.perf_counter() - begun, time.process_time() - used)


def node(frames: int) -> Took:
    """Let Node decipher ``frames`` frames of one to three blocks, and nothing else; its start does not count."""
    done = subprocess.run(["node", "-e", DECIPHER, str(frames)], capture_output=True, check=True)
    return Took(*json.loads(done.stdout))
