// A client with @grpc/grpc-js: create, wait, get, a conflict, bulk submit and a watch. Prints one JSON object.
// Usage: node client.js PROTO_DIRECTORY NAME IMAGE, with the stack's environment.
'use strict';
const fs = require('fs');
const grpc = require('@grpc/grpc-js');
const loader = require('@grpc/proto-loader');

const [proto, name, image] = process.argv.slice(2);
const files = ['container_service', 'operation_service', 'event_service'].map((f) => `harpoon/v1/${f}.proto`);
const definition = loader.loadSync(files, { includeDirs: [proto, `${proto}/vendor`, '/usr/include'], longs: String, enums: String, oneofs: true });
const api = grpc.loadPackageDefinition(definition).harpoon.v1;
const endpoint = process.env.HARPOON_ENDPOINT.replace('https://', '');
const credentials = grpc.credentials.createSsl(fs.readFileSync(process.env.HARPOON_CA));
const metadata = new grpc.Metadata();
metadata.set('authorization', `Bearer ${process.env.HARPOON_TOKEN}`);
const parent = 'projects/demo/regions/r1';

function call(service, method, request) {
  return new Promise((resolve, reject) => {
    service[method](request, metadata, { deadline: Date.now() + 30000 }, (error, answer) => (error ? reject(error) : resolve(answer)));
  });
}

function createRequest(id) {
  return { parent, containerId: id, requestId: `js-${id}`, container: { spec: { image, resources: { cpuMillis: '20', memoryBytes: '16777216' } } } };
}

// Types of the container's events, until its operation has succeeded.
function watch(events, subject) {
  return new Promise((resolve, reject) => {
    const types = [];
    const stream = events.Watch({ parent: 'regions/r1', filter: { subject }, afterSequence: '0' }, metadata, { deadline: Date.now() + 30000 });
    stream.on('data', (answer) => {
      if (!answer.event) return;
      types.push(answer.event.type);
      if (answer.event.type === 'harpoon.operation.succeeded') {
        stream.cancel();
        resolve(types);
      }
    });
    stream.on('error', (error) => (error.code === grpc.status.CANCELLED ? undefined : reject(error)));
  });
}

// How many of a bulk submit are accepted.
function submit(events, count) {
  return new Promise((resolve, reject) => {
    let accepted = 0;
    const stream = events.Submit(metadata, { deadline: Date.now() + 30000 });
    stream.on('data', (answer) => { if (!answer.status || !answer.status.code) accepted += 1; });
    stream.on('error', reject);
    stream.on('end', () => resolve(accepted));
    for (let i = 0; i < count; i += 1) stream.write({ correlation: String(i), create: createRequest(`${name}-${i}`) });
    stream.end();
  });
}

async function main() {
  const containers = new api.ContainerService(endpoint, credentials);
  const operations = new api.OperationService(endpoint, credentials);
  const events = new api.EventService(endpoint, credentials);
  const operation = await call(containers, 'CreateContainer', createRequest(name));
  const done = await call(operations, 'WaitOperation', { name: operation.name, timeout: { seconds: '20' } });
  const container = await call(containers, 'GetContainer', { name: `${parent}/containers/${name}` });
  const again = await call(containers, 'CreateContainer', { ...createRequest(name), requestId: `${name}-again` }).then(() => 0, (e) => e.code);
  const types = await watch(events, `${parent}/containers/${name}`);
  const submitted = await submit(events, 20);
  console.log(JSON.stringify({ stage: done.stage, state: container.status.state, again, types, submitted }));
  process.exit(0);
}

main().catch((error) => { console.error(error); process.exit(1); });
