import { AgentDB } from '@llm-copilot/agentdb'

const db = await AgentDB.open({ path: 'agent.db' })
const chat = db.conversations.create({ title: 'Deploy help' })
db.messages.create({ conversation_id: chat.id, role: 'user', content: 'How do I roll it back?' })
await db.embeddings.put({
  collection: 'documentation_embeddings',
  content: 'To roll back a release, deploy the tag before it.',
  payload: { title: 'Rolling back' },
})
const [best] = await db.search({ collection: 'documentation_embeddings', text: 'roll back', k: 1 })
console.log(db.messages.list({ where: { conversation_id: chat.id } })[0]?.content)
console.log(best?.contentPreview, best?.score.toFixed(2))
await db.close()
