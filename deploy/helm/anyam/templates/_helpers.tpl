{{/* Names are fixed, as sidecars, the webhook and the documentation refer to them. A cluster has one mesh. */}}
{{- define "anyam.name" -}}anyam-control{{- end }}

{{- define "anyam.selector" -}}
app.kubernetes.io/name: {{ include "anyam.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "anyam.labels" -}}
{{ include "anyam.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/component: control-plane
app.kubernetes.io/part-of: anyam
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{/* list CONTEXT REPOSITORY */}}
{{- define "anyam.image" -}}
{{- $root := index . 0 -}}
{{- $repository := index . 1 -}}
{{- with $root.Values.image.registry }}{{ . }}/{{ end }}{{ $repository }}
{{- if not (contains "@" $repository) }}:{{ $root.Values.image.tag | default $root.Chart.AppVersion }}{{ end }}
{{- end }}

{{/* Listening address of a port; on IPv6 it accepts IPv4 too. */}}
{{- define "anyam.any" -}}
{{- if .Values.ipv6 }}[::]{{ else }}0.0.0.0{{ end }}
{{- end }}

{{/* Namespaces whose pods are never injected, as JSON. */}}
{{- define "anyam.excludedNamespaces" -}}
{{- $always := list "kube-system" "kube-public" "kube-node-lease" .Release.Namespace -}}
{{- concat $always .Values.injection.excludedNamespaces | uniq | toJson }}
{{- end }}

{{/* The file of --injection-settings. */}}
{{- define "anyam.injectionSettings" -}}
{{- $name := include "anyam.name" . -}}
{{- $proxy := deepCopy .Values.injection.proxy -}}
{{- $_ := set $proxy "image" (include "anyam.image" (list . .Values.image.proxy)) -}}
{{- $_ := set $proxy "imagePullPolicy" .Values.image.pullPolicy -}}
{{- /* Helm 3 keeps values that are null, Helm 4 does not: the checksum of the settings would differ. */ -}}
{{- range $key, $value := .Values.injection.proxy }}{{ if kindIs "invalid" $value }}{{ $_ := unset $proxy $key }}{{ end }}{{ end -}}
controlPlane: {{ $name }}.{{ .Release.Namespace }}.svc:15012
controlPlaneName: {{ $name }}
trustDomain: {{ .Values.trustDomain }}
clusterDomain: {{ .Values.clusterDomain }}
tokenSeconds: {{ .Values.injection.tokenSeconds | int64 }}
meshCidrs: {{ .Values.injection.meshCidrs | toJson }}
imagePullSecrets: {{ .Values.injection.imagePullSecrets | toJson }}
excludedNamespaces: {{ include "anyam.excludedNamespaces" . }}
proxy: {{- toYaml $proxy | nindent 2 }}
{{- end }}
