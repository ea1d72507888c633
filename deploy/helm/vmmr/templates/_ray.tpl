{{- /* KubeRay may cut the name of the head's Service, which ends with -head-svc, to 50 characters. */}}
{{- define "vmmr.ray.name" -}}{{ include "vmmr.name" . | trunc 37 | trimSuffix "-" }}-ray{{- end }}

{{- define "vmmr.ray.refusals" -}}
{{- $search := .Values.search }}
{{- if not $search.ray.claim }}{{ fail "search.ray.claim must name the claim of a volume that all nodes can mount (ReadWriteMany), with the index in its folder `index`" }}{{ end }}
{{- if $search.writer.enabled }}{{ fail "search.writer.enabled does not go with search.ray.enabled: the front ends read an index that all nodes share, and a journal cannot be on such a volume" }}{{ end }}
{{- range list "gallery" "galleryRevision" }}
{{- if get $search . }}{{ fail (printf "search.%s does not go with search.ray.enabled: the front ends and the shards read the index of search.ray.claim, not copies of a backup" .) }}{{ end }}
{{- end }}
{{- if $search.autoscaling.enabled }}{{ fail "search.autoscaling.enabled does not go with search.ray.enabled: queries wait for the shards, so more front ends do not help; raise search.ray.nodes" }}{{ end }}
{{- if gt (int $search.ray.shardReplicas) (int $search.ray.nodes) }}{{ fail "search.ray.shardReplicas must be <= search.ray.nodes: no node has two replicas of a shard" }}{{ end }}
{{- if not .Values.networkPolicy.enabled }}{{ fail "networkPolicy.enabled must be true with search.ray.enabled: whoever reaches the ports of Ray runs code there" }}{{ end }}
{{- end }}

{{- /* Who talks to whom over Ray, on ports that it chooses: the nodes of the cluster, of which each front end is one. */}}
{{- define "vmmr.ray.peers" -}}
{{- $root := . }}
{{- range list "ray" "search" }}
- podSelector:
    matchLabels: {{- include "vmmr.labels" (dict "root" $root "component" .) | nindent 6 }}
{{- end }}
{{- end }}

{{- /* Ray has its logs and sockets in /tmp. */}}
{{- define "vmmr.ray.volumes" -}}
- {name: tmp, emptyDir: {sizeLimit: 10Gi}}
- {name: data, persistentVolumeClaim: {claimName: {{ .Values.search.ray.claim }}}}
{{- end }}

{{- /* A pod of the cluster: what KubeRay does not add itself. */}}
{{- define "vmmr.ray.pod" -}}
metadata:
  labels: {{- include "vmmr.labels" . | nindent 4 }}
spec:
  {{- include "vmmr.anyPod" . | nindent 2 }}
  containers:
    - name: ray-{{ .node }}
      image: {{ include "vmmr.image" (dict "root" .root "image" .root.Values.search.ray.image) }}
      imagePullPolicy: {{ .root.Values.image.pullPolicy }}
      {{- if eq .node "head" }}
      ports: [{name: gcs, containerPort: {{ .port }}}]
      {{- end }}
      # KubeRay's own probes need wget, which the image lacks.
      readinessProbe: {tcpSocket: {port: {{ .port }}}, periodSeconds: 5, failureThreshold: 3}
      livenessProbe: {tcpSocket: {port: {{ .port }}}, initialDelaySeconds: 60, periodSeconds: 10, failureThreshold: 6}
      securityContext: {{- include "vmmr.securityContext" . | nindent 8 }}
      resources:
        {{- range list "requests" "limits" }}
        {{ . }}: {cpu: {{ $.cores | quote }}, memory: {{ $.memory }}}
        {{- end }}
      volumeMounts:
        - {name: tmp, mountPath: /tmp}
        - {name: data, mountPath: /data}
  volumes: {{- include "vmmr.ray.volumes" .root | nindent 4 }}
{{- end }}
