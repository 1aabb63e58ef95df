import { readdirSync, readFileSync } from 'node:fs'
import { extname, join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'

/** A piece of a file that is indexed as one embedding. */
export interface Chunk {
  readonly path: string
  readonly package: string
  /** Nearest heading before it, or the name of the file. */
  readonly title: string
  readonly text: string
}

export interface Corpus {
  /** Files in order, each with its pieces. */
  readonly files: readonly (readonly Chunk[])[]
  readonly chunks: number
  readonly packages: number
  readonly characters: number
}

export type CorpusPart = 'documentation' | 'code'

const nodeModules = fileURLToPath(new URL('../../node_modules/', import.meta.url))

/** Packages whose texts the demo reads; all of them are dependencies of ours. */
const packages = [
  'fastify',
  'better-sqlite3',
  'commander',
  'jose',
  'kysely',
  'light-my-request',
  'msgpackr',
  'pg',
  'pg-pool',
  'uuid',
  'find-my-way',
  'avvio',
  'zod',
]

const extensions: Readonly<Record<CorpusPart, ReadonlySet<string>>> = {
  documentation: new Set(['.md']),
  code: new Set(['.js']),
}

const skipped =
  /(?:^|\/)(?:node_modules|test|tests|deps|dist|benchmarks?|examples?|fixtures)(?:\/|$)/
const CHUNK_LENGTH = 900
const CHUNKS_A_FILE_MAX = 40
const FILE_LENGTH_MAX = 200_000

/** Reads READMEs and guides, or sources, of installed packages: the same chunks in the same order wherever they are the same. */
export function readCorpus(part: CorpusPart, chunksMax: number): Corpus {
  const files: Chunk[][] = []
  let chunks = 0
  for (const name of packages) {
    for (const path of filesOf(join(nodeModules, name), extensions[part])) {
      if (chunks >= chunksMax) break
      const pieces = split(name, path, part).slice(0, chunksMax - chunks)
      if (pieces.length === 0) continue
      files.push(pieces)
      chunks += pieces.length
    }
  }
  const all = files.flat()
  return {
    files,
    chunks,
    packages: new Set(all.map((chunk) => chunk.package)).size,
    characters: all.reduce((sum, { text }) => sum + text.length, 0),
  }
}

function filesOf(folder: string, wanted: ReadonlySet<string>): string[] {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && wanted.has(extname(entry.name).toLowerCase()))
    .map((entry) => join(entry.parentPath, entry.name))
    .filter((path) => !skipped.test(relative(folder, path)))
    .toSorted((a, b) => (a < b ? -1 : 1))
}

/** Pieces of whole paragraphs, of about {@link CHUNK_LENGTH} characters. */
function split(name: string, path: string, part: CorpusPart): Chunk[] {
  const content = readFileSync(path, 'utf8').replaceAll('\0', '')
  if (content.length > FILE_LENGTH_MAX) return []
  const shown = relative(nodeModules, path)
  const chunks: Chunk[] = []
  let title = shown
  let text = ''
  const flush = (): void => {
    if (text.trim() !== '') chunks.push({ path: shown, package: name, title, text: text.trim() })
    text = ''
  }
  for (const paragraph of content.split(/\n\s*\n/)) {
    const heading = part === 'documentation' ? /^#+\s+(.+)$/m.exec(paragraph)?.[1] : undefined
    if (heading !== undefined || text.length + paragraph.length > CHUNK_LENGTH) flush()
    if (heading !== undefined) title = heading.slice(0, 200)
    text = `${text}${paragraph}\n\n`.slice(0, 4 * CHUNK_LENGTH)
  }
  flush()
  return chunks.slice(0, CHUNKS_A_FILE_MAX)
}
