/**
 * Compiles the kernels of the vector scan. The source is AssemblyScript, which is no TypeScript to any other tool:
 * hence its ending, `.as`, which the compiler is shown as `.ts`.
 */
import { readFileSync } from 'node:fs'
import asc from 'assemblyscript/asc'

const folder = new URL('../../src/vector/wasm/', import.meta.url)

/** The generated module, whole. */
export const kernelModule = new URL('scan-module.ts', folder)

/** What {@link kernelModule} must be: a module with the compiled bytes in base64. */
export async function compiledKernelModule(): Promise<string> {
  const source = readFileSync(new URL('scan.as', folder), 'utf8')
  let bytes = new Uint8Array(0)
  const { error } = await asc.main(
    [
      'scan.ts',
      '-O3',
      '--noAssert',
      '--runtime',
      'stub',
      '--enable',
      'simd',
      '--importMemory',
    ].concat(['--outFile', 'scan.wasm']),
    {
      readFile: (name) => (name === 'scan.ts' ? source : null),
      writeFile: (_, contents) => {
        bytes = Uint8Array.from(contents as Uint8Array)
      },
      listFiles: () => [],
    },
  )
  if (error !== null) throw new Error('scan.as does not compile', { cause: error })
  return `/** Compiled from scan.as by \`npm run vectors:write\`; a test compares. */
export const scanModule =
  '${Buffer.from(bytes).toString('base64')}'
`
}
