import type { NewRow } from '../../schema/index.ts'
import { pick, wholeBelow, type Random } from './random.ts'

const words =
  'deploy service latency rollback queue timeout retry database index cache token cluster region alert release config schema worker memory budget trace span error replica lease shard'.split(
    ' ',
  )

export function sentence(random: Random, count: number): string {
  return Array.from({ length: count }, () => pick(random, words)).join(' ')
}

/** A message of about 285 bytes as a row: what agents write most. */
export function newMessage(random: Random, conversationId: string): NewRow<'messages'> {
  return {
    conversation_id: conversationId,
    role: pick(random, ['user', 'assistant']),
    content: sentence(random, 16),
    model: 'model-1',
    tokens_used: wholeBelow(random, 400),
    latency_ms: wholeBelow(random, 2000),
  }
}

/** An incident with every kind of column filled: JSON, arrays, times. */
export function newIncident(random: Random): NewRow<'incidents'> {
  return {
    title: sentence(random, 6),
    description: sentence(random, 30),
    severity: pick(random, ['critical', 'high', 'medium', 'low']),
    source: 'alertmanager',
    affected_services: [pick(random, words), pick(random, words)],
    affected_users_count: wholeBelow(random, 5000),
    blast_radius: { regions: ['eu-1', 'us-2'], services: [pick(random, words)], share: 0.25 },
    metadata: { alert: sentence(random, 2), value: random(), labels: { team: 'core', tier: 1 } },
    assigned_team: 'sre',
  }
}

/** Unit vectors around 64 centres, as embeddings of texts cluster around topics. */
export function vectorSource(random: Random, dimension: number): () => Float32Array {
  const gaussian = (): number =>
    Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random())
  const centres = Array.from({ length: 64 }, () =>
    Float32Array.from({ length: dimension }, gaussian),
  )
  return () => {
    const centre = pick(random, centres)
    const vector = centre.map((component) => component + 0.5 * gaussian())
    const length = Math.hypot(...vector)
    return vector.map((component) => component / length)
  }
}
