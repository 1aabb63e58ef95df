/** Searches where there is no WebAssembly (`node --jitless`) and writes what it found. */
import { newKernels } from '../../src/vector/kernels.ts'
import { ScanIndex } from '../../src/vector/scan-index.ts'

const index = new ScanIndex(3)
index.set('a', Float32Array.of(1, 0, 0))
index.set('b', Float32Array.of(0, 1, 0))
const found = index.search(Float32Array.of(0, 5, 0), 2)
process.stdout.write(JSON.stringify({ kind: newKernels().kind, found }))
