import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { compiledKernelModule, kernelModule } from '../../support/vector-kernels.ts'

test('the committed kernels are what their source compiles to (npm run vectors:write)', async () => {
  expect(readFileSync(kernelModule, 'utf8')).toBe(await compiledKernelModule())
})

test('without WebAssembly the same is found in JavaScript', () => {
  const child = new URL('../../support/child-without-wasm.ts', import.meta.url).pathname
  const output = execFileSync(process.execPath, ['--jitless', '--import', 'tsx', child], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'ignore'],
  })
  expect(JSON.parse(output)).toEqual({
    kind: 'javascript',
    found: [
      { id: 'b', score: 1 },
      { id: 'a', score: 0 },
    ],
  })
})
