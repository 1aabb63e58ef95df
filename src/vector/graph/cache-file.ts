import { createHash, randomBytes } from 'node:crypto'
import { mkdir, open, readdir, rename, rm, stat, truncate, type FileHandle } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import type { Entry } from './graph.ts'

/**
 * The file of a graph. It is a cache: whatever is wrong with it, it is refused and the graph is built from the rows.
 *
 *     engine's bytes | table | header (JSON) | lengths of the three | version | magic | SHA-256 of all before
 *
 * The engine's bytes come first, because the library writes them to a file of its own, which then only grows.
 */
const MAGIC = Buffer.from('AgentDB\u0001graph\r\n\n', 'latin1')
const FORMAT = 1
const HASH_BYTES = 32
const LENGTHS_BYTES = 8 + 8 + 4 + 4
const TAIL_BYTES = LENGTHS_BYTES + MAGIC.length + HASH_BYTES
const CHUNK_BYTES = 1 << 20
/** Temporary files of processes that were killed are older than that. */
const LEFT_BEHIND_MS = 600_000

/** Whose graph it is. A file is read only where all of it is equal. */
export interface CacheIdentity {
  readonly collection: string
  readonly model: string
  readonly dimension: number
  readonly metric: 'cosine'
  readonly build: string
  readonly m: number
  readonly efConstruct: number
  readonly storeId: string
}

export interface CacheHeader extends CacheIdentity {
  /** How often the graph of this file was saved. */
  readonly generation: number
  readonly watermark: number
  readonly count: number
  readonly nextLabel: number
}

export type CacheRead =
  | { readonly kind: 'absent' }
  | { readonly kind: 'refused'; readonly reason: string }
  | {
      readonly kind: 'read'
      readonly header: CacheHeader
      readonly entries: readonly Entry[]
      /** The engine's part, alone, in a file of the reader's own; it removes it. */
      readonly enginePath: string
    }

interface CacheWrite {
  readonly path: string
  readonly header: CacheHeader
  readonly entries: Iterable<Entry>
  saveEngine(path: string): Promise<void>
  isWhole(path: string): Promise<boolean>
}

/**
 * Writes a whole file or none: temporary file, fsync, rename, fsync of the folder. Returns its bytes.
 *
 * @throws what the file system says, or an Error where the engine's part is cut short
 */
export async function writeCache(write: CacheWrite): Promise<number> {
  const { path } = write
  await mkdir(dirname(path), { recursive: true })
  await removeLeftBehind(path)
  const temporary = temporaryName(path, 'save')
  try {
    await write.saveEngine(temporary)
    const engineBytes = await sizeOf(temporary)
    if (engineBytes === undefined || !(await write.isWhole(temporary)))
      throw new Error(`the engine wrote only ${engineBytes ?? 0} bytes: is the disk full?`)
    const bytes = await complete(temporary, engineBytes, write)
    await rename(temporary, path)
    await syncFolder(dirname(path))
    return bytes
  } finally {
    await rm(temporary, { force: true }).catch(() => undefined)
  }
}

async function complete(
  temporary: string,
  engineBytes: number,
  { header, entries }: CacheWrite,
): Promise<number> {
  const file = await open(temporary, 'r+')
  try {
    const hash = createHash('sha256')
    await readThrough(file, engineBytes, (chunk) => void hash.update(chunk))
    const table = encodeEntries(entries)
    const json = Buffer.from(JSON.stringify(header))
    const lengths = Buffer.alloc(LENGTHS_BYTES)
    lengths.writeBigUInt64LE(BigInt(engineBytes), 0)
    lengths.writeBigUInt64LE(BigInt(table.length), 8)
    lengths.writeUInt32LE(json.length, 16)
    lengths.writeUInt32LE(FORMAT, 20)
    const body = Buffer.concat([table, json, lengths, MAGIC])
    const tail = Buffer.concat([body, hash.update(body).digest()])
    for (let done = 0; done < tail.length;) {
      const { bytesWritten } = await file.write(
        tail,
        done,
        Math.min(CHUNK_BYTES, tail.length - done),
        engineBytes + done,
      )
      done += bytesWritten
    }
    await file.sync()
    return engineBytes + tail.length
  } finally {
    await file.close()
  }
}

/** Reads and judges a file. Never throws: a file that cannot be read is one that is refused. */
export async function readCache(path: string, identity: CacheIdentity): Promise<CacheRead> {
  const enginePath = temporaryName(path, 'load')
  let file: FileHandle | undefined
  try {
    await removeLeftBehind(path)
    file = await open(path, 'r')
    const read = await judge(file, identity, enginePath)
    if (read.kind !== 'read') await rm(enginePath, { force: true })
    return read
  } catch (error) {
    await rm(enginePath, { force: true }).catch(() => undefined)
    if ((error as NodeJS.ErrnoException).code === 'ENOENT' && file === undefined)
      return { kind: 'absent' }
    return refused(`it cannot be read: ${error instanceof Error ? error.message : String(error)}`)
  } finally {
    await file?.close().catch(() => undefined)
  }
}

const refused = (reason: string): CacheRead => ({ kind: 'refused', reason })

/** From one open file, since another process may put a newer one in its place at any moment. */
async function judge(
  file: FileHandle,
  identity: CacheIdentity,
  enginePath: string,
): Promise<CacheRead> {
  const { size } = await file.stat()
  if (size < TAIL_BYTES) return refused('it is too short')
  const tail = Buffer.alloc(TAIL_BYTES)
  await fill(file, tail, size - TAIL_BYTES)
  if (!tail.subarray(LENGTHS_BYTES, LENGTHS_BYTES + MAGIC.length).equals(MAGIC))
    return refused('it is cut short, or no graph')
  if (tail.readUInt32LE(20) !== FORMAT) return refused('it has another format')
  const engineBytes = Number(tail.readBigUInt64LE(0))
  const tableBytes = Number(tail.readBigUInt64LE(8))
  const headerBytes = tail.readUInt32LE(16)
  if (engineBytes + tableBytes + headerBytes + TAIL_BYTES !== size)
    return refused('it does not have its length')
  const rest = Buffer.alloc(size - engineBytes)
  await fill(file, rest, engineBytes)
  // What another store, model or library wrote need not be read whole to be refused.
  const header = parseHeader(rest.subarray(tableBytes, tableBytes + headerBytes))
  const foreign = header === undefined ? 'header' : differing(header, identity)
  if (header === undefined || foreign !== undefined)
    return refused(`it is of another ${foreign ?? 'graph'}`)
  const hash = createHash('sha256')
  await copyEngine(file, engineBytes, enginePath, (chunk) => void hash.update(chunk))
  hash.update(rest.subarray(0, rest.length - HASH_BYTES))
  if (!hash.digest().equals(rest.subarray(rest.length - HASH_BYTES)))
    return refused('its checksum is wrong')
  const entries = decodeEntries(rest.subarray(0, tableBytes))
  if (entries?.length !== header.count) return refused('its table is damaged')
  return { kind: 'read', header, entries, enginePath }
}

async function copyEngine(
  file: FileHandle,
  bytes: number,
  path: string,
  see: (chunk: Buffer) => void,
): Promise<void> {
  const copy = await open(path, 'wx')
  try {
    let at = 0
    await readThrough(file, bytes, async (chunk) => {
      see(chunk)
      for (let done = 0; done < chunk.length;)
        done += (await copy.write(chunk, done, chunk.length - done, at + done)).bytesWritten
      at += chunk.length
    })
  } finally {
    await copy.close()
  }
  // The length is what the library trusts.
  await truncate(path, bytes)
}

function parseHeader(bytes: Buffer): CacheHeader | undefined {
  try {
    const header = JSON.parse(bytes.toString('utf8')) as CacheHeader
    const { generation, watermark, count, nextLabel } = header
    const numbers = [generation, watermark, count, nextLabel]
    return numbers.every((n) => Number.isSafeInteger(n) && n >= 0) ? header : undefined
  } catch {
    return undefined
  }
}

function differing(header: CacheHeader, identity: CacheIdentity): string | undefined {
  for (const [name, value] of Object.entries(identity))
    if ((header as unknown as Record<string, unknown>)[name] !== value) return name
  return undefined
}

/** Label, stamp, hash and the length of its id, before the id. */
const ENTRY_BYTES = 24

/** Label, stamp, hash and id of each row. */
function encodeEntries(entries: Iterable<Entry>): Buffer {
  const parts: Buffer[] = []
  for (const { id, label, stamp, hash } of entries) {
    const name = Buffer.from(id, 'utf8')
    const fixed = Buffer.alloc(ENTRY_BYTES)
    fixed.writeUInt32LE(label, 0)
    fixed.writeDoubleLE(stamp, 4)
    fixed.writeDoubleLE(hash, 12)
    fixed.writeUInt32LE(name.length, 20)
    parts.push(fixed, name)
  }
  return Buffer.concat(parts)
}

function decodeEntries(table: Buffer): Entry[] | undefined {
  const entries: Entry[] = []
  for (let at = 0; at < table.length;) {
    if (at + ENTRY_BYTES > table.length) return undefined
    const end = at + ENTRY_BYTES + table.readUInt32LE(at + 20)
    if (end > table.length) return undefined
    entries.push({
      id: table.toString('utf8', at + ENTRY_BYTES, end),
      label: table.readUInt32LE(at),
      stamp: table.readDoubleLE(at + 4),
      hash: table.readDoubleLE(at + 12),
    })
    at = end
  }
  return entries
}

async function readThrough(
  file: FileHandle,
  bytes: number,
  see: (chunk: Buffer) => void | Promise<void>,
): Promise<void> {
  const chunk = Buffer.alloc(Math.min(CHUNK_BYTES, bytes))
  for (let at = 0; at < bytes;) {
    const part = chunk.subarray(0, Math.min(chunk.length, bytes - at))
    await fill(file, part, at)
    await see(part)
    at += part.length
  }
}

async function fill(file: FileHandle, into: Buffer, position: number): Promise<void> {
  for (let done = 0; done < into.length;) {
    const { bytesRead } = await file.read(into, done, into.length - done, position + done)
    if (bytesRead === 0) throw new Error('the file ends before it should')
    done += bytesRead
  }
}

async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, 'r')
  try {
    await folder.sync()
  } finally {
    await folder.close()
  }
}

const sizeOf = async (path: string): Promise<number | undefined> =>
  (await stat(path).catch(() => undefined))?.size

const temporaryName = (path: string, what: 'save' | 'load'): string =>
  join(dirname(path), `.${basename(path)}.${what}-${process.pid}-${randomBytes(6).toString('hex')}`)

/** A process that is killed leaves its temporary file behind. */
async function removeLeftBehind(path: string): Promise<void> {
  const folder = dirname(path)
  const before = Date.now() - LEFT_BEHIND_MS
  for (const name of await readdir(folder).catch(() => [])) {
    if (!name.startsWith(`.${basename(path)}.`)) continue
    const file = join(folder, name)
    const found = await stat(file).catch(() => undefined)
    if (found !== undefined && found.mtimeMs < before)
      await rm(file, { force: true }).catch(() => undefined)
  }
}
