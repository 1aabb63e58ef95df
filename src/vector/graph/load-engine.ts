import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import type { EngineAnswer, EngineName } from './engine.ts'
import { HnswlibEngine, type Hnswlib } from './hnswlib-engine.ts'
import { UsearchEngine, type Usearch } from './usearch-engine.ts'

const require = createRequire(import.meta.url)

const packages: Readonly<Record<EngineName, string>> = {
  hnswlib: 'hnswlib-node',
  usearch: 'usearch',
}

/** The npm package behind an engine. */
export const packageOf = (name: EngineName): string => packages[name]

/** Whether the package of an engine can be found; not whether it can be loaded. */
export function isInstalled(name: EngineName): boolean {
  try {
    require.resolve(packages[name])
    return true
  } catch {
    return false
  }
}

/** Loads the native addon, or says why not. Call it in the worker: an addon blocks the thread that loads it. */
export function loadEngine(name: EngineName): EngineAnswer {
  try {
    const build = `${packages[name]} ${versionOf(packages[name])} ${process.arch}`
    if (['arm', 'ia32'].includes(process.arch)) throw new Error('needs a 64-bit processor')
    if (name === 'hnswlib') {
      const library = require('hnswlib-node') as Hnswlib
      return {
        kind: 'available',
        name,
        build,
        create: (settings) => new HnswlibEngine(library, settings),
      }
    }
    const library = require('usearch') as Usearch
    return {
      kind: 'available',
      name,
      build,
      create: (settings) => new UsearchEngine(library, settings),
    }
  } catch (error) {
    const why = error instanceof Error ? (error.message.split('\n')[0] ?? '') : String(error)
    return { kind: 'unavailable', name, reason: `${packages[name]} cannot be loaded: ${why}` }
  }
}

/** From the package's own file: an `exports` map may hide it from `require`. */
function versionOf(name: string): string {
  let folder = dirname(require.resolve(name))
  for (;;) {
    try {
      const found = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8')) as {
        name?: string
        version?: string
      }
      if (found.name === name) return found.version ?? 'unknown'
    } catch {
      // Not in this folder.
    }
    if (dirname(folder) === folder) return 'unknown'
    folder = dirname(folder)
  }
}
