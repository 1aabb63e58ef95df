import { AgentDB } from '@llm-copilot/agentdb'

const db = await AgentDB.open({ path: 'agent.db' })
const talk = db.conversations.create({ title: 'Night shift' })
db.messages.create({
  conversation_id: talk.id,
  role: 'user',
  content: 'the checkout is slow again',
})
db.incidents.create({ title: 'Checkout answers slowly', severity: 'high', source: 'pager' })
await db.embeddings.putMany([
  {
    collection: 'documentation_embeddings',
    content: 'If the checkout is slow, look at the pool of connections first.',
    payload: { title: 'Checkout' },
  },
  {
    collection: 'code_embeddings',
    content: 'export const getUserById = (id: string) => users.get(id)',
    payload: { file_path: 'src/users.ts', language: 'typescript', project_id: 'shop' },
  },
])

// Words and vectors, over rows of three kinds.
const found = await db.search({
  in: ['incidents', 'messages', 'documentation_embeddings'],
  text: 'Why is the checkout so slow?',
  highlight: true,
})
for (const { collection, highlight } of found) console.log(`${collection}: ${highlight}`)

// One result for each conversation.
const talks = await db.search({
  in: ['conversations', 'messages'],
  text: 'slow checkout',
  mode: 'text',
  groupBy: { field: 'conversation_id', rank: 'sources' },
})
for (const { group } of talks)
  console.log('talks:', db.conversations.find(group?.value ?? '')?.title)

// A part of an identifier.
const [code] = await db.search({
  collection: 'code_embeddings',
  text: 'UserBy',
  match: 'substring',
})
console.log('code:', code?.payload)
await db.close()
