import { createHash } from 'node:crypto'
import { lstat, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { sql } from 'kysely'
import { AgentDBError, preview } from '../../../schema/errors.ts'
import { hashingEmbedder, type AgentDB, type PutEmbedding } from '../../../src/index.ts'
import { chunksOf, kindOf, titleOf, type Chunk, type FileKind } from './chunks.ts'
import { isOutOfSight, listFiles } from './files.ts'

export interface IndexReport {
  readonly project: string
  /** Files by what became of them. */
  readonly added: number
  readonly changed: number
  readonly unchanged: number
  /** Files whose rows went, since they are not there any more. */
  readonly removed: number
  /** Rows that were embedded. */
  readonly chunks: number
  /** Files that were left out, by reason. */
  readonly skipped: Readonly<Record<SkipReason, number>>
  /** Whether it was stopped before the end; the next run goes on. */
  readonly stopped: boolean
}

export type SkipReason = 'unknown' | 'binary' | 'huge' | 'unreadable'

export interface IndexOptions {
  readonly folder: string
  readonly project: string
  /** Whether the user named the project; else one of the same name may be another. */
  readonly isProjectGiven: boolean
  readonly signal: AbortSignal
  readonly onProgress: (files: number, total: number, isDone: boolean) => void
}

/** Larger files are not read. */
export const FILE_BYTES_MAX = 1024 * 1024
/** Bytes that are looked at to tell text from anything else, as git does. */
const BINARY_PROBE_BYTES = 8000
/** Part of every file's hash: another way of cutting files makes all of them new. */
const CHUNKING_VERSION = 1

/**
 * Brings the rows of a project to what the folder has. Each file is written whole, its new rows before its old ones go:
 * wherever it stops, nothing that was there is lost, and the next run finds and finishes it.
 */
export async function indexFolder(db: AgentDB, options: IndexOptions): Promise<IndexReport> {
  const { folder, project, signal, onProgress } = options
  const known = await knownFiles(db, project)
  const paths = await listFiles(folder)
  mustBeThatProject(options, known, paths)
  const report = {
    project,
    added: 0,
    changed: 0,
    unchanged: 0,
    removed: 0,
    chunks: 0,
    skipped: { unknown: 0, binary: 0, huge: 0, unreadable: 0 },
    stopped: false,
  }
  const seen = new Set<string>()
  for (const [i, path] of paths.entries()) {
    if (signal.aborted) return { ...report, stopped: true }
    onProgress(i, paths.length, false)
    const file = await readText(folder, path)
    // What cannot be read now is not gone.
    if (typeof file !== 'string' || file === 'unreadable') seen.add(path)
    if (typeof file === 'string') {
      report.skipped[file] += 1
      continue
    }
    const rows = known.get(path) ?? []
    const hash = hashOf(file)
    const stale = rows.filter((row) => row.hash !== hash).map(({ id }) => id)
    if (stale.length === 0 && isWhole(rows)) {
      report.unchanged += 1
      continue
    }
    const isHalf = !isWhole(rows.filter((row) => row.hash === hash))
    if (isHalf) {
      const inputs = inputsOf(path, file, project, hash)
      await db.embeddings.putMany(inputs)
      report.chunks += inputs.length
    }
    deleteRows(db, isHalf ? rows.map(({ id }) => id) : stale)
    report[rows.length === 0 ? 'added' : 'changed'] += 1
  }
  for (const [path, rows] of known) {
    if (seen.has(path)) continue
    if (await isOutOfSight(folder, path)) {
      report.skipped.unreadable += 1
      continue
    }
    deleteRows(
      db,
      rows.map(({ id }) => id),
    )
    report.removed += 1
  }
  onProgress(paths.length, paths.length, true)
  return report
}

interface KnownRow {
  readonly id: string
  readonly hash: string
  readonly count: number
}

async function knownFiles(db: AgentDB, project: string): Promise<Map<string, KnownRow[]>> {
  const { rows } = await sql<KnownRow & { path: string }>`
    SELECT id, payload ->> 'file_path' AS path, payload ->> 'file_hash' AS hash, payload ->> 'file_chunks' AS count
    FROM embeddings WHERE collection IN ('code_embeddings', 'documentation_embeddings') AND user_id = ${db.userId}
      AND payload ->> 'project_id' = ${project} AND payload ->> 'file_hash' IS NOT NULL`.execute(
    db.kysely,
  )
  const found = new Map<string, KnownRow[]>()
  for (const { path, ...row } of rows) found.set(path, [...(found.get(path) ?? []), row])
  return found
}

/**
 * Two folders of one name must not take each other's rows away, though both have a `README.md`: most of the files that
 * the project had must still be there. Where they have moved or are gone, naming the project says so.
 */
function mustBeThatProject(
  { project, isProjectGiven, folder }: IndexOptions,
  known: ReadonlyMap<string, unknown>,
  paths: readonly string[],
): void {
  const there = paths.filter((path) => known.has(path)).length
  if (isProjectGiven || there * 2 >= known.size) return
  const name = preview(project)
  throw new AgentDBError(
    'INVALID_OPTION',
    `${folder} has ${there} of the ${known.size} files that project ${name} has in the store: if it is another folder, give it a name of its own with --project; if the rest has moved or is gone, say so with --project ${name}`,
  )
}

interface TextFile {
  readonly text: string
  readonly kind: FileKind
}

async function readText(folder: string, path: string): Promise<TextFile | SkipReason> {
  const kind = kindOf(path)
  if (kind === undefined) return 'unknown'
  try {
    const { size } = await lstat(join(folder, path))
    if (size > FILE_BYTES_MAX) return 'huge'
    const bytes = await readFile(join(folder, path))
    if (bytes.subarray(0, BINARY_PROBE_BYTES).includes(0)) return 'binary'
    return { text: bytes.toString('utf8'), kind }
  } catch {
    return 'unreadable'
  }
}

const hashOf = ({ text }: TextFile): string =>
  createHash('sha256')
    .update(`${CHUNKING_VERSION} ${hashingEmbedder.model}\n${text}`)
    .digest('hex')
    .slice(0, 32)

/** Whether all rows of a file are there; an empty file has one that says so. */
const isWhole = (rows: readonly KnownRow[]): boolean =>
  rows.length > 0 && rows.length === rows[0]?.count

function deleteRows(db: AgentDB, ids: readonly string[]): void {
  db.transaction(() => {
    for (const id of ids) db.embeddings.delete(id)
  })
}

function inputsOf(
  path: string,
  { text, kind }: TextFile,
  project: string,
  hash: string,
): PutEmbedding[] {
  const found = chunksOf(text, kind)
  // Remembered like any other, so that it is not looked at again.
  const chunks: Chunk[] =
    found.length > 0 ? found : [{ content: '', startLine: 1, endLine: 1, name: undefined }]
  const title = kind.kind === 'document' ? titleOf(text, path) : ''
  return chunks.map(({ content, startLine, endLine, name }) => {
    const place = {
      file_path: path,
      project_id: project,
      start_line: startLine,
      end_line: endLine,
      file_hash: hash,
      file_chunks: chunks.length,
    }
    if (kind.kind === 'code') {
      const named = name === undefined ? {} : { function_name: name }
      const payload = { ...place, language: kind.language, ...named }
      return { collection: 'code_embeddings', content, payload }
    }
    const section = name ?? title
    const url = `${path}#L${startLine}`
    return {
      collection: 'documentation_embeddings',
      content,
      payload: { ...place, title, section, url },
    }
  })
}
