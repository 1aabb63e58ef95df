/**
 * The loop of a memory that learns: retrieve, act, judge, distill, consolidate. The model is a fake, so that it runs
 * anywhere; put calls of yours in its place.
 *
 *   npx tsx examples/memory.ts
 */
import { AgentDB, type Distill, type Judge } from '@llm-copilot/agentdb'

await using db = await AgentDB.open({ path: ':memory:' })

/** Stands for your agent: it reads what it is told, and only then looks beyond the first page. */
const act = (query: string, system: string): { think: string; action: string }[] => [
  { think: `The task is: ${query}`, action: 'open(orders)' },
  ...(system.includes('Read every page')
    ? [{ think: 'There may be more.', action: 'last()' }]
    : []),
]

const judge: Judge = ({ steps }) =>
  JSON.stringify(steps).includes('last()')
    ? { label: 'success', thoughts: 'It saw the whole list.', confidence: 0.9 }
    : { label: 'failure', thoughts: 'It read the first page only.', confidence: 0.8 }

// What a model answers is Markdown in the paper's format, or a list of { title, description, content }.
const fromFailure: Distill = () => `# Memory Item 1
## Title Read every page
## Description When an answer may be on a later page of a list.
## Content Go to the last page before you answer.`
const fromSuccess: Distill = () => [
  {
    title: 'The first order is on the last page',
    description: 'For lists that begin with the newest.',
    content: 'Open the last page of the list at once.',
  },
]

for (const query of ['Find my first order', 'Find the date of my first order']) {
  const items = await db.memory.retrieve({ query })
  const steps = act(query, `You are a shopping agent.\n\n${db.memory.render(items)}`)
  const { id } = db.memory.recordTrajectory({ taskId: query, query, steps })
  const { outcome } = await db.memory.judge(id, judge)
  for (const { id: itemId } of items)
    db.memory.feedback({ itemId, used: true, ...(outcome === 'success' ? { helped: true } : {}) })
  await db.memory.distill(id, { success: fromSuccess, failure: fromFailure })
  console.log(`${query}: ${items.length} lessons known, ${outcome}`)
}

await db.memory.consolidate()
for (const { polarity, title, helped_count: helped } of db.memory.items.list())
  console.log(`${polarity}: ${title} (helped ${helped})`)
