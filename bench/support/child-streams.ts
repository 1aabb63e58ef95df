/**
 * Live streams without stores behind them, in a process of their own: `node --import tsx child-streams.ts OPTIONS`. Each
 * line of its input is a number: so many streams are then open, and `open NUMBER` is printed. `seen MARK TIME` tells when
 * the last of them got a batch with a text `MARK ...`; nothing is decoded.
 */
import { get } from 'node:http'
import { createInterface } from 'node:readline'
import { newId } from '../../schema/values/id.ts'
import { SCHEMA_VERSION } from '../../schema/version.ts'
import { FrameKind, FrameReader } from '../../sync/protocol/frames.ts'
import { PROTOCOL_VERSION } from '../../sync/protocol/version.ts'
import { sharedNow } from './clock.ts'

export interface StreamsOptions {
  readonly url: string
  readonly token: string
  /** False is a plain server: a stream is open once its head has come. */
  readonly isCentre: boolean
}

/** Streams that are opened at the same time: each begins with reading a scope. */
const OPENING = 20

const { url, token, isCentre } = JSON.parse(process.argv[2] ?? '{}') as StreamsOptions
const seen = new Map<string, number>()
let open = 0

const lines = createInterface({ input: process.stdin })
lines.on('close', () => process.exit())
lines.on('line', (wanted) => void openTo(Number(wanted)))

async function openTo(wanted: number): Promise<void> {
  let next = open
  const openNext = async (): Promise<void> => {
    while (next < wanted) {
      next += 1
      await openStream()
    }
  }
  await Promise.all(Array.from({ length: OPENING }, openNext))
  open = wanted
  console.log(`open ${wanted}`)
}

/** Resolves with its first batch. */
function openStream(): Promise<void> {
  const query = new URLSearchParams({ client: newId(), schema: String(SCHEMA_VERSION), acked: '0' })
  const headers = {
    authorization: `Bearer ${token}`,
    'x-agentdb-protocol': String(PROTOCOL_VERSION),
  }
  return new Promise((done) => {
    get(
      new URL(`/sync/v1/live?${query.toString()}`, url),
      { headers, agent: false },
      (response) => {
        if (response.statusCode !== 200) throw new Error(`no stream: ${response.statusCode}`)
        if (!isCentre) done()
        const frames = new FrameReader()
        response.on('data', (piece: Buffer) => {
          for (const { kind, payload } of frames.read(piece)) {
            if (kind !== FrameKind.batch) continue
            note(payload)
            done()
          }
        })
      },
    )
  })
}

function note(payload: Uint8Array): void {
  const [mark] = /mark-\d+/.exec(Buffer.from(payload).toString('latin1')) ?? []
  if (mark === undefined) return
  const count = (seen.get(mark) ?? 0) + 1
  seen.set(mark, count)
  if (count === open) console.log(`seen ${mark} ${sharedNow()}`)
}
