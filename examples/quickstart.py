"""glintpy in eight lines: a matrix on two servers, a push, a pull, and numpy reading."""

import glintpy

with glintpy.local(servers=2) as client:  # embedded: master and two server processes
    m = client.matrix(10_000, 100, dtype="float32")
    m.push([3, 9, 3], 0.05).result()  # rows may repeat: row 3 gets it twice
    print(m.pull([3, 9]).result()[:, 0])  # [0.1  0.05]
    print(m[3, :4])  # numpy reading
