/** Compiles `src/vector/wasm/scan.as`: `npm run vectors:write`. */
import { writeFileSync } from 'node:fs'
import { compiledKernelModule, kernelModule } from './vector-kernels.ts'

writeFileSync(kernelModule, await compiledKernelModule())
